"""What containers use: samples stored, rolled up, queried and streamed; and the state of the database itself."""
