// The shapes of Android's classes that the sample uses, so that a compiler can check the sample without the SDK.
// Written from the Android API reference; nothing in them runs.

package android.app

import android.content.ContentResolver
import android.content.Context
import android.content.Intent
import android.os.Bundle
import android.view.View

open class Activity : Context() {
    open fun onCreate(saved: Bundle?) {}
    open fun onActivityResult(request: Int, result: Int, data: Intent?) {}
    fun setContentView(view: View) {}
    fun startActivityForResult(intent: Intent, request: Int) {}
    fun runOnUiThread(action: () -> Unit) {}
    val contentResolver: ContentResolver get() = throw NotImplementedError()
    val RESULT_OK: Int get() = -1
}
