"""What `immud enable` and `immud disable` check, write and take back."""
