-- PostgreSQL runs this once, in an empty volume.
CREATE DATABASE mlflow_accounts;
