"""`retake-edge serve`: one loaded model, asked over HTTP in the forms of OpenAI's clients."""
