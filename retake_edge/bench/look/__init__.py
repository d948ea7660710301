"""What a second look gets back of what a first reading lost, and how sure answers are."""
