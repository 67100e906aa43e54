"""Read any number of pictures into parquet files, with several processes, Ray or Spark."""
