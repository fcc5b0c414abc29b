"""CPUs under QEMU: an artifact's numbers on an instruction set that is not here."""
