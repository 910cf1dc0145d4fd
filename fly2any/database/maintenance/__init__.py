"""Weekly, monthly and quarterly maintenance."""
