"""Files from elsewhere: over HTTP, and from the Hugging Face Hub; what broke off goes on where it ended."""
