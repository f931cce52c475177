"""More than one machine: archives, training and tuning on Ray, which only this room imports."""
