"""The gRPC services of identity, one for each subject, and their messages."""
