"""Usage of containers: samples stored, rolled up, queried and streamed; and the state of the database."""
