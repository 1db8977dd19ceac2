"""Usage of containers (samples are stored, rolled up, queried and streamed), and the state of the database."""
