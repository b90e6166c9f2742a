"""What Ray calls experimental, where Ray has it."""
