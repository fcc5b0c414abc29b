"""Files that go into bundles as they are, to run on the device without edgeopt."""
