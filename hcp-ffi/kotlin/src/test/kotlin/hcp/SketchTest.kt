package hcp

import hello
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import java.io.ByteArrayOutputStream
import java.io.PrintStream
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.time.Duration.Companion.minutes

/** Runs the sketches of examples/sketches, which are compiled with the tests. */
class SketchTest {
    @Test
    fun `a friend says hello to the echo bot and hears it`() = within(1.minutes) {
        inTemporaryFolder { folder ->
            val java = "${System.getProperty("java.home")}/bin/java"
            val command = listOf(java, "-cp", System.getProperty("java.class.path"), "EchoKt", "$folder/bot", "local:$folder")
            val builder = ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT)
            builder.environment()["HCP_PASSPHRASE"] = "a passphrase"
            val bot = builder.start()
            val stdout = System.out
            try {
                val address = withContext(Dispatchers.IO) { bot.inputReader().readLine() }
                val printed = ByteArrayOutputStream()
                System.setOut(PrintStream(printed))
                hello("$folder/alice", address, Network.Local(LocalNetwork("$folder")))
                assertEquals("hello", printed.toString().trim())
            } finally {
                System.setOut(stdout)
                bot.destroyForcibly().waitFor()
            }
        }
    }
}
