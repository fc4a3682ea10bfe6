export interface EventStreamOptions {
  /** Fires when the client leaves. */
  left: AbortSignal
  /** Sends the events; its signal fires when nobody reads any more. */
  write: (send: (event: object) => void, signal: AbortSignal) => Promise<void>
  /** The last event of a stream that failed. */
  toEvent: (error: unknown, signal: AbortSignal) => object
  /** Called once, when nothing is being written any more. */
  onOver: () => void
}

/**
 * Server-sent events of one answer, `[DONE]` last. The response begins with the first of them, so that what fails before
 * has a status of its own.
 */
export async function eventStream({ left, write, toEvent, onOver }: EventStreamOptions): Promise<Response> {
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
      sendText(JSON.stringify(toEvent(error, signal)))
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
