import { toApiError } from './api-error.ts'

/**
 * Server-sent events of one answer, `[DONE]` last. The response begins with the first of them, so that what fails before
 * has a status of its own; what fails later is the last event.
 *
 * @param left fires when the client leaves
 * @param write sends the events; its signal fires when nobody reads any more
 * @param onOver called once, when nothing is being written any more
 */
export async function eventStream(
  left: AbortSignal,
  write: (send: (event: object) => void, signal: AbortSignal) => Promise<void>,
  onOver: () => void,
): Promise<Response> {
  const encoder = new TextEncoder()
  const unread = new AbortController()
  const signal = AbortSignal.any([left, unread.signal])
  let controller!: ReadableStreamDefaultController<Uint8Array>
  const body = new ReadableStream<Uint8Array>({
    start: (given) => {
      controller = given
    },
    cancel: () => unread.abort(new DOMException('the client left', 'AbortError')),
  })
  let begin = () => {}
  const begun = new Promise<void>((resolve) => {
    begin = resolve
  })
  let isBegun = false
  const sendText = (text: string) => {
    if (unread.signal.aborted) return
    controller.enqueue(encoder.encode(`data: ${text}\n\n`))
    isBegun = true
    begin()
  }
  const writing = write((event) => sendText(JSON.stringify(event)), signal)
    .then(() => sendText('[DONE]'))
    .catch((error: unknown) => {
      if (!isBegun) throw error
      sendText(JSON.stringify(toApiError(error).body))
    })
    .finally(() => {
      onOver()
      if (!unread.signal.aborted) controller.close()
    })
  await Promise.race([begun, writing])
  return new Response(body, {
    headers: { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache' },
  })
}
