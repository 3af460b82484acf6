"""What people look at: each front end in its own folder, speaking the protocol like everybody else."""
