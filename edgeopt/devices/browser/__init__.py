"""A real browser as a device: onnxruntime-web in headless Chromium."""
