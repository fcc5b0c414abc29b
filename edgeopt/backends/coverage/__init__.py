"""What each runtime really ran, and why what was planned in int8 was not."""
