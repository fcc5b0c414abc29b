package dev.edgeopt.sample

/** Reads a file of the bundle, by its name below `assets/bundle`. */
typealias BundleFiles = (String) -> ByteArray

/** The bundle's reference samples, run on this phone and compared with what the engine gave where it was compiled. */
fun runSelfTest(test: SelfTest, contract: Contract, files: BundleFiles, infer: (Map<String, Tensor>) -> Map<String, Tensor>): List<Difference> {
    val sources = test.inputs.associateWith { files(it.file) }
    val made = HashMap<String, MutableList<Double>>()
    for (start in 0 until test.samples step contract.batch) {
        val rows = (start until start + contract.batch).map { Math.min(it, test.samples - 1) }
        val inputs = contract.inputs.associate { input ->
            val reference = test.inputs.first { it.name == input.name }
            input.name to gather(reference, sources.getValue(reference), rows, input)
        }
        val outputs = infer(inputs)
        val fresh = Math.min(contract.batch, test.samples - start)
        for (reference in test.outputs) {
            val tensor = requireNotNull(outputs[reference.name]) { "The engine has no output '${reference.name}'." }
            val values = numbers(tensor.dtype, tensor.bytes).take(fresh * reference.row)
            made.getOrPut(reference.name) { ArrayList() }.addAll(values)
        }
    }
    return test.outputs.map { reference ->
        val raw = files(reference.file)
        val buffer = allocate(raw.size)
        buffer.put(raw)
        compare(reference.name, made.getValue(reference.name).toDoubleArray(), numbers(reference.dtype, buffer), test.share)
    }
}

private fun gather(reference: Reference, raw: ByteArray, rows: List<Int>, input: InputContract): Tensor {
    val size = reference.row * bytesOf(reference.dtype)
    val bytes = allocate(size * rows.size)
    for (row in rows) bytes.put(raw, row * size, size)
    bytes.rewind()
    return Tensor(reference.dtype, input.shapeFor(rows.size), bytes)
}

/** Milliseconds per inference: the median of `repeats`, after a tenth as many that do not count. */
fun medianMs(repeats: Int, infer: () -> Unit): Double {
    for (index in 0 until repeats / 10 + 1) infer()
    val times = DoubleArray(repeats) {
        val start = System.nanoTime()
        infer()
        (System.nanoTime() - start) / 1e6
    }
    times.sort()
    return times[repeats / 2]
}

/** The `count` classes with the largest scores, best first. */
fun best(scores: DoubleArray, classes: List<String>, count: Int): List<String> =
    scores.indices.sortedByDescending { scores[it] }.take(count).map { index ->
        "${classes.getOrElse(index) { "class $index" }}: ${"%.3f".format(scores[index])}"
    }
