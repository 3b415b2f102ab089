"""What a checkpoint needs before it goes out: calibration, reference scores, and the way to the Hub."""
