"""What the commands print: numbers as tables, and what they come to in sentences."""
