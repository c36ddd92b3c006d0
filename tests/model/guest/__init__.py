"""The guest's side, case by case."""
