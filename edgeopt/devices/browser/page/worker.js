// One engine in a worker of its own: the page stays free to draw, and drawing never shares a thread with what is timed.
// Requests and replies are those of edgeopt/agent/protocol.py, with addresses of arrays (wire.js) for names of files.

import { arrivals, timed, warmed } from "./loops.js";
import { pack, unpack, zeros } from "./wire.js";

const LEVELS = { disable: "disabled", basic: "basic", extended: "extended", layout: "layout", all: "all" };

let ort = null;
let session = null;
let current = null;
let loadMs = null;
let freshly = false;

const actions = {
  // The runtime is one .wasm file; it is compiled when the first session is made. A one-node graph makes that happen
  // here, so that load_ms is the engine's alone.
  async start({ runtime, graph, threads }) {
    const begin = performance.now();
    ort = await import(`${runtime}ort.wasm.min.mjs`);
    ort.env.wasm.wasmPaths = runtime;
    ort.env.wasm.numThreads = threads || navigator.hardwareConcurrency;
    ort.env.logLevel = "error";
    await (await ort.InferenceSession.create(graph)).release();
    return {
      import_ms: performance.now() - begin,
      runtime_version: ort.env.versions.web || ort.env.versions.common,
      threads: ort.env.wasm.numThreads,
    };
  },

  async load({ engine, external, options, nothing }) {
    const begin = performance.now();
    if (nothing) {
      session = nothingOf(JSON.parse(new TextDecoder().decode(await bytes(engine))));
    } else {
      session = await opened(engine, external, options);
    }
    loadMs = performance.now() - begin;
    freshly = true;
    return {
      load_ms: loadMs,
      inputs: session.inputs || ports(session.inputMetadata),
      outputs: session.outputs || ports(session.outputMetadata),
    };
  },

  async first({ inputs }) {
    if (!freshly) throw named("OrderError", "The first inference has been run already.");
    const arrays = await tensors(inputs);
    freshly = false;
    const begin = performance.now();
    free(await session.run(arrays));
    const firstMs = performance.now() - begin;
    current = arrays;
    return { cold_start_ms: loadMs + firstMs, load_ms: loadMs, first_ms: firstMs };
  },

  async inputs({ inputs, batch }) {
    current = await tensors(inputs);
    return { batch };
  },

  async warm({ n, within_pct = null, most = 0, limit_s = 0 }) {
    return warmed(one(), n, within_pct, most, limit_s);
  },

  async time({ n, per = 1 }) {
    return { ...(await timed(one(), n, per)), runtime_ns: null, preemptions: null };
  },

  async serve({ schedule_ns }) {
    return arrivals(one(), schedule_ns);
  },

  // All samples of one packed file, whole batches of them; the outputs go back as one packed file.
  async infer({ inputs, outputs, batch }) {
    const { arrays, count } = await fetched(inputs);
    freshly = false;
    const parts = {};
    for (let start = 0; start < count; start += batch) {
      const given = {};
      for (const [name, { dtype, shape, data }] of Object.entries(arrays)) {
        const row = data.length / count;
        given[name] = tensor(dtype, [batch, ...shape.slice(1)], data.subarray(start * row, (start + batch) * row));
      }
      const made = await session.run(given);
      for (const [name, value] of Object.entries(made)) {
        if (value.dims[0] !== batch) {
          throw named(
            "InputError",
            `Output '${name}' has shape [${value.dims}] for a batch of ${batch}: its first dimension is not the batch, ` +
              "so its rows cannot be told apart by sample.",
          );
        }
        (parts[name] ||= []).push({ dtype: value.type, shape: [...value.dims], data: value.data });
      }
      free(made);
    }
    const reply = await fetch(outputs, { method: "POST", body: pack(joined(parts)) });
    if (!reply.ok) throw new Error(`The outputs were not taken: ${reply.status} ${reply.statusText}`);
    return { samples: count };
  },
};

self.onmessage = async ({ data: { id, request } }) => {
  try {
    const action = actions[request.do];
    if (!action) throw named("RequestError", `There is no request '${request.do}'.`);
    if (request.do !== "start" && request.do !== "load" && !session) throw named("OrderError", "No engine is loaded yet.");
    self.postMessage({ id, reply: await action(request) });
  } catch (error) {
    self.postMessage({ id, reply: { error: said(error), kind: error?.name || "Error" } });
  }
};

async function opened(engine, external, options) {
  const externalData = await Promise.all(
    Object.entries(external).map(async ([path, url]) => ({ path, data: await bytes(url) })),
  );
  return ort.InferenceSession.create(await bytes(engine), {
    executionProviders: ["wasm"],
    graphOptimizationLevel: LEVELS[options.graph_optimization_level || "all"],
    logSeverityLevel: 3,
    interOpNumThreads: 1,
    extra: nested(options.config || {}),
    externalData,
  });
}

function one() {
  if (!current) throw named("OrderError", "No inputs were chosen yet: send 'inputs' or 'first' before.");
  freshly = false;
  const [run, inputs] = [session, current];
  return () => run.run(inputs);
}

// What edgeopt/agent/runners/null.py is: zeros of the right shapes. What is timed with it is the loop itself.
function nothingOf({ inputs, outputs }) {
  const plain = (ports) => Object.fromEntries(Object.entries(ports).map(([name, [dtype, shape]]) => [name, { dtype, shape }]));
  return {
    inputs: plain(inputs),
    outputs: plain(outputs),
    async run(given) {
      const batch = Object.values(given)[0].dims[0];
      return Object.fromEntries(
        Object.entries(outputs).map(([name, [dtype, shape]]) => {
          const dims = shape.map((n) => (typeof n === "string" ? batch : n));
          return [name, tensor(dtype, dims, zeros(dtype, dims.reduce((product, n) => product * n, 1)))];
        }),
      );
    },
  };
}

async function bytes(url) {
  const reply = await fetch(url);
  if (!reply.ok) throw new Error(`${url.split("/").pop()} cannot be fetched: ${reply.status} ${reply.statusText}`);
  return new Uint8Array(await reply.arrayBuffer());
}

async function fetched(url) {
  const arrays = unpack((await bytes(url)).buffer);
  return { arrays, count: Object.values(arrays)[0].shape[0] };
}

async function tensors(url) {
  const { arrays } = await fetched(url);
  return Object.fromEntries(Object.entries(arrays).map(([name, a]) => [name, tensor(a.dtype, a.shape, a.data)]));
}

function tensor(dtype, shape, data) {
  return new ort.Tensor(dtype, data, shape);
}

// What a run gives is let go of at once, so that a large split does not pile up before the collector comes.
function free(outputs) {
  for (const value of Object.values(outputs)) value.dispose();
}

function joined(parts) {
  const whole = {};
  for (const [name, list] of Object.entries(parts)) {
    const data = new list[0].data.constructor(list.reduce((sum, part) => sum + part.data.length, 0));
    let at = 0;
    for (const part of list) {
      data.set(part.data, at);
      at += part.data.length;
    }
    const rows = list.reduce((sum, part) => sum + part.shape[0], 0);
    whole[name] = { dtype: list[0].dtype, shape: [rows, ...list[0].shape.slice(1)], data };
  }
  return whole;
}

// {"session.intra_op.allow_spinning": "0"} as the nested object that onnxruntime-web flattens again.
function nested(entries) {
  const whole = {};
  for (const [key, value] of Object.entries(entries)) {
    const words = key.split(".");
    const last = words.pop();
    words.reduce((inner, word) => (inner[word] ||= {}), whole)[last] = String(value);
  }
  return whole;
}

function ports(metadata) {
  const list = metadata.map(({ name, type, shape }) => [name, { dtype: type === "bool" ? "bool" : type, shape }]);
  return Object.fromEntries(list);
}

function named(kind, message) {
  const error = new Error(message);
  error.name = kind;
  return error;
}

function said(error) {
  // A failed allocation in WebAssembly is thrown as a bare number, a pointer to a C++ exception.
  return typeof error === "number" ? `the runtime threw a C++ exception (${error})` : String(error?.message || error);
}
