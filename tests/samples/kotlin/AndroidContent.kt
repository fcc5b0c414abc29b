package android.content

import android.content.res.AssetManager
import android.net.Uri
import java.io.InputStream

open class Context {
    val assets: AssetManager get() = throw NotImplementedError()
}

class ContentResolver {
    fun openInputStream(uri: Uri): InputStream? = null
}

class Intent(val action: String) {
    var type: String? = null
    val data: Uri? = null

    companion object {
        const val ACTION_GET_CONTENT = "android.intent.action.GET_CONTENT"
    }
}
