// Named arrays in one message: see edgeopt/devices/browser/wire.py, which holds the other end.

const VIEWS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: typeof Float16Array === "undefined" ? Uint16Array : Float16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
};
const ALIGNED = 8;

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  for (const { name, dtype, shape, offset } of header) {
    const count = shape.reduce((product, n) => product * n, 1);
    arrays[name] = { dtype, shape, data: new VIEWS[dtype](buffer, offset, count) };
  }
  return arrays;
}

export function pack(arrays) {
  const list = Object.entries(arrays).map(([name, { dtype, shape, data }]) => ({ name, dtype, shape, data, offset: 0 }));
  // Offsets are written with a fixed number of digits' room: the header's length must not depend on them.
  const room = 4 + encoded(list.map((entry) => ({ ...head(entry), offset: Number.MAX_SAFE_INTEGER }))).length;
  let at = aligned(room);
  for (const entry of list) {
    entry.offset = at;
    at = aligned(at + entry.data.byteLength);
  }
  const header = encoded(list.map(head));
  const whole = new Uint8Array(at);
  new DataView(whole.buffer).setUint32(0, header.length, true);
  whole.set(header, 4);
  for (const { data, offset } of list) {
    whole.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
  }
  return whole;
}

export function zeros(dtype, count) {
  return new VIEWS[dtype](count);
}

function head({ name, dtype, shape, offset }) {
  return { name, dtype, shape, offset };
}

function encoded(value) {
  return new TextEncoder().encode(JSON.stringify(value));
}

function aligned(n) {
  return Math.ceil(n / ALIGNED) * ALIGNED;
}
