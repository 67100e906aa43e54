"""Decode files from unknown people, with limits on memory and time that hold before anything is decoded."""
