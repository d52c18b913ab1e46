"""What makes a student's distributions like its teacher's."""
