// What this browser can do, asked of the browser itself.

// Modules of one function each that hold one instruction of a proposal; a browser without it finds them invalid.
const MODULES = {
  // i32.const 0, i8x16.splat, i8x16.popcnt
  simd128: [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
  // twice i32.const 1, i8x16.splat; i8x16.relaxed_swizzle
  relaxed_simd: [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11],
};
const MAGIC = [0, 97, 115, 109, 1, 0, 0, 0];

export function features() {
  const found = Object.keys(MODULES).filter((name) => WebAssembly.validate(new Uint8Array([...MAGIC, ...MODULES[name]])));
  return self.crossOriginIsolated && typeof SharedArrayBuffer !== "undefined" ? [...found, "threads"] : found;
}

// The smallest step of performance.now(), in µs.
export function resolutionUs() {
  const steps = [];
  const start = performance.now();
  let last = start;
  while (last - start < 20) {
    const now = performance.now();
    if (now > last) steps.push(now - last);
    last = now;
  }
  return Math.round(Math.min(...steps) * 1e3);
}
