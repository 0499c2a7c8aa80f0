"""What this project measures of itself: the suite behind `mlx-tslm bench`, single scripts, and raw results."""
