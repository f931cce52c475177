"""What the LSTM does: its gates, its memory, its attention, and what each part is worth."""
