package hcp

import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlin.io.path.writeText
import kotlin.test.assertEquals
import kotlin.test.fail
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.runInterruptible

/** A running `hcp-chat daemon`, in another process, driven by lines of JSON. */
class ChatDaemon private constructor(private val process: Process) : AutoCloseable {
    /** Waits for a line in which all of these fields stand, at whatever depth. */
    suspend fun tells(vararg fields: Pair<String, String>): String = coroutineScope {
        val wanted = fields.map { (name, value) -> "\"$name\":\"$value\"" }
        val reading = async(Dispatchers.IO) {
            generateSequence { process.inputReader().readLine() }.firstOrNull { line -> wanted.all { it in line } }
        }
        try {
            reading.await() ?: fail("hcp-chat ended before it told ${fields.toList()}")
        } catch (late: CancellationException) {
            // Nothing else interrupts who reads from a process.
            process.destroyForcibly()
            throw late
        }
    }

    /** Gives a command and waits until it is done. No value may need escaping. */
    suspend fun ask(command: String, vararg arguments: Pair<String, String>) {
        val fields = listOf("id" to command, "command" to command) + arguments
        val line = fields.joinToString(",", "{", "}") { (name, value) -> "\"$name\":\"$value\"" }
        process.outputWriter().apply { write("$line\n") }.flush()
        val reply = tells("reply" to command)
        if ("\"ok\":" !in reply) fail("hcp-chat refused $command: $reply")
    }

    /** Ends it as a user would, and sees that it ends well. */
    suspend fun end() = runInterruptible(Dispatchers.IO) {
        process.destroy()
        if (!process.waitFor(20, TimeUnit.SECONDS)) fail("hcp-chat does not end")
        assertEquals(0, process.exitValue())
    }

    override fun close() {
        process.destroyForcibly().waitFor()
    }

    companion object {
        /** Makes a profile and starts a daemon for it, on the private Tor network. */
        suspend fun start(folder: Path, testnet: String, name: String): ChatDaemon = runInterruptible(Dispatchers.IO) {
            val bin = System.getenv("HCP_BIN") ?: fail("where hcp-chat is, check.sh knows")
            val passphrase = folder.resolve("passphrase").apply { writeText("correct horse\n") }
            val common = listOf(
                "$bin/hcp-chat", "--home=${folder.resolve("chat")}", "--private-tor=$testnet", "--passphrase-file=$passphrase",
            )
            val init = ProcessBuilder(common + listOf("init", "--name=$name"))
                .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                .redirectError(ProcessBuilder.Redirect.INHERIT)
            assertEquals(0, init.start().waitFor())
            val daemon = ProcessBuilder(common + "daemon").redirectError(ProcessBuilder.Redirect.INHERIT)
            ChatDaemon(daemon.start())
        }
    }
}

/** The value of a JSON line's first field of that name. */
fun field(line: String, name: String): String =
    Regex("\"$name\":\"([^\"]*)\"").find(line)?.groupValues?.get(1) ?: fail("no $name in $line")
