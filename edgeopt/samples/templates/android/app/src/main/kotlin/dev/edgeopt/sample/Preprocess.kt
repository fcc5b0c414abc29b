package dev.edgeopt.sample

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** An input or an output: raw little-endian bytes, its NumPy dtype and its shape. */
class Tensor(val dtype: String, val shape: LongArray, val bytes: ByteBuffer)

/** Bytes per element of the dtypes that this sample handles. */
fun bytesOf(dtype: String): Int = when (dtype) {
    "float32", "int32" -> 4
    "int64", "float64" -> 8
    "uint8", "int8", "bool" -> 1
    else -> throw IllegalArgumentException("This sample does not handle tensors of type $dtype.")
}

/** A direct little-endian buffer: what ONNX Runtime reads without a copy. */
fun allocate(size: Int): ByteBuffer = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())

/** Rows, columns and channels of an image input. */
class ImageSize(val height: Int, val width: Int, val channels: Int)

/** The size of the picture that the input takes, from its layout. */
fun imageSize(input: InputContract): ImageSize {
    fun dim(index: Int): Int = requireNotNull(input.shape[index]) { "The size of input '${input.name}' varies." }
    return when (input.layout) {
        "NCHW" -> ImageSize(dim(2), dim(3), dim(1))
        "NHWC" -> ImageSize(dim(1), dim(2), dim(3))
        else -> throw IllegalArgumentException("Input '${input.name}' is no picture: its layout is ${input.layout}.")
    }
}

/**
 * Turns pixels into the model's input: (x * scale - mean) / std per channel, in the input's layout.
 *
 * @param pixels 0xAARRGGBB, row by row, already at the input's size.
 * @return one sample, [1, ...].
 */
fun imageTensor(pixels: IntArray, input: InputContract): Tensor {
    val size = imageSize(input)
    val area = size.height * size.width
    require(pixels.size == area) { "Input '${input.name}' takes $area pixels; received ${pixels.size}." }
    require(size.channels == 3 || size.channels == 1) { "A picture has 1 or 3 channels, not ${size.channels}." }
    val bytes = allocate(area * size.channels * bytesOf(input.dtype))
    for (pixel in 0 until area) {
        for (channel in 0 until size.channels) {
            val place = if (input.layout == "NCHW") channel * area + pixel else pixel * size.channels + channel
            val raw = if (size.channels == 1) grey(pixels[pixel]) else (pixels[pixel] shr (16 - 8 * channel)) and 0xFF
            put(bytes, place, raw, channel, input)
        }
    }
    return Tensor(input.dtype, input.shapeFor(1), bytes)
}

/** ITU-R 601-2 luma with the integer weights that Pillow uses for its mode "L". */
private fun grey(pixel: Int): Int {
    val red = (pixel shr 16) and 0xFF
    val green = (pixel shr 8) and 0xFF
    val blue = pixel and 0xFF
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16
}

private fun put(bytes: ByteBuffer, place: Int, raw: Int, channel: Int, input: InputContract) {
    if (input.dtype == "uint8") {
        bytes.put(place, raw.toByte())
        return
    }
    require(input.dtype == "float32") { "This sample does not turn pixels into ${input.dtype}." }
    val mean = input.mean?.let { it[if (it.size == 1) 0 else channel] } ?: 0.0
    val std = input.std?.let { it[if (it.size == 1) 0 else channel] } ?: 1.0
    bytes.putFloat(place * 4, ((raw * input.scale - mean) / std).toFloat())
}
