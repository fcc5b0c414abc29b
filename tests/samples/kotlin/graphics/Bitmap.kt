package android.graphics

import java.io.InputStream

class Bitmap {
    fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {}

    companion object {
        fun createScaledBitmap(source: Bitmap, width: Int, height: Int, filter: Boolean): Bitmap = source
    }
}

object BitmapFactory {
    fun decodeStream(stream: InputStream): Bitmap? = null
}
