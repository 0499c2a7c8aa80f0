"""`mlx-tslm serve`: a model behind a page and OpenAI's endpoint."""
