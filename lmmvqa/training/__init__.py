"""Training: `run_training(config)` for a YAML file; `build_trainer(LmmVqaTrainingArguments(...))` from Python."""
