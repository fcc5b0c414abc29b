package dev.edgeopt.sample

import org.json.JSONArray
import org.json.JSONObject

/** One input as the bundle's manifest describes it. `shape` has null where a dimension may vary. */
class InputContract(
    val name: String,
    val dtype: String,
    val shape: List<Int?>,
    val layout: String?,
    val scale: Double,
    val mean: List<Double>?,
    val std: List<Double>?,
    val preprocessing: String?
) {
    /** The shape at a batch of `count`; the first dimension is the batch. */
    fun shapeFor(count: Int): LongArray {
        val dims = LongArray(shape.size)
        for (index in shape.indices) {
            val dim = shape[index]
            dims[index] = if (index == 0) count.toLong() else requireNotNull(dim) {
                "Dimension $index of input '$name' varies; give it a size in the model."
            }.toLong()
        }
        return dims
    }
}

/** What the app needs of `manifest.json`: how to feed the engine, and how to open it. */
class Contract(
    val inputs: List<InputContract>,
    val outputs: List<String>,
    val classes: List<String>,
    val engineFile: String,
    val batch: Int,
    val threads: Int,
    val sessionConfig: Map<String, String>
) {
    companion object {
        /** Reads the manifest. Shapes are the engine's: static where it was compiled static. */
        fun parse(text: String): Contract {
            val manifest = JSONObject(text)
            val engine = manifest.getJSONObject("engine")
            val options = engine.getJSONObject("options")
            val contract = manifest.getJSONObject("contract")
            val shapes = HashMap<String, List<Int?>>()
            for (spec in objects(engine.getJSONArray("inputs"))) {
                shapes[spec.getString("name")] = dims(spec.getJSONArray("shape"))
            }
            val inputs = objects(contract.getJSONArray("inputs")).map { input(it, shapes) }
            val config = HashMap<String, String>()
            options.optJSONObject("config")?.let { entries ->
                for (key in entries.keys()) config[key] = entries.getString(key)
            }
            return Contract(
                inputs = inputs,
                outputs = objects(contract.getJSONArray("outputs")).map { it.getString("name") },
                classes = strings(contract.optJSONArray("classes")),
                engineFile = engine.getString("entry"),
                batch = if (engine.isNull("batch")) 1 else engine.getInt("batch"),
                threads = options.optInt("threads", 2),
                sessionConfig = config
            )
        }

        private fun input(record: JSONObject, shapes: Map<String, List<Int?>>): InputContract {
            val name = record.getString("name")
            return InputContract(
                name = name,
                dtype = record.getString("dtype"),
                shape = shapes[name] ?: dims(record.getJSONArray("shape")),
                layout = text(record, "layout"),
                scale = ratio(text(record, "scale")),
                mean = numbers(record.optJSONArray("mean")),
                std = numbers(record.optJSONArray("std")),
                preprocessing = text(record, "preprocessing")
            )
        }

        /** "1/255" or "0.5"; 1 where nothing is scaled. */
        private fun ratio(text: String?): Double {
            if (text == null) return 1.0
            val parts = text.split("/")
            return parts[0].trim().toDouble() / (if (parts.size > 1) parts[1].trim().toDouble() else 1.0)
        }

        private fun text(record: JSONObject, key: String): String? =
            if (record.isNull(key)) null else record.getString(key)

        private fun objects(array: JSONArray): List<JSONObject> =
            (0 until array.length()).map { array.getJSONObject(it) }

        private fun strings(array: JSONArray?): List<String> =
            if (array == null) emptyList() else (0 until array.length()).map { array.getString(it) }

        private fun numbers(array: JSONArray?): List<Double>? =
            if (array == null) null else (0 until array.length()).map { array.getDouble(it) }

        private fun dims(array: JSONArray): List<Int?> =
            (0 until array.length()).map { (array.get(it) as? Number)?.toInt() }
    }
}
