"""What is promised of interruptions, hostile files, long runs and odd numbers, each promise tried and counted."""
