"""What a run's files tell, without the model: reading log.jsonl, tables of its figures."""
