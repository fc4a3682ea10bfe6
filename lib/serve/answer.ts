import type { Policy } from '../policy/policy.ts'
import { tokenizerOf } from '../rollout/encode-question.ts'
import type { ApiError } from './api-error.ts'
import type { Gate } from './gate.ts'
import type { ServedRequest } from './request.ts'
import type { FinishedChoice, MakeShape, Shape } from './shapes.ts'
import { eventStream } from './stream.ts'
import type { Writer } from './write.ts'

/** What answers are made with. */
export interface Work {
  policy: Policy
  model: string
  gate: Gate
  writer: Writer
  /** What a client is told of an error; `left` fires when it is gone. */
  toAnswer: (error: unknown, left: AbortSignal) => ApiError
}

export interface Job {
  request: ServedRequest
  makeShape: MakeShape
  left: AbortSignal
}

/** The response to one request, whole or as a stream. @throws ApiError, and what the writer throws */
export async function answer(work: Work, { request, makeShape, left }: Job): Promise<Response> {
  const { policy, model, gate } = work
  const shape = makeShape({ model, tokenizer: tokenizerOf(policy), logProbs: request.logProbs })
  const leave = gate.enter(request.prompts.length * request.n)
  try {
    if (!request.stream) return Response.json(await writeWhole(work, { request, shape, signal: left }))
    return await eventStream({
      left,
      write: (send, signal) => writeChunks(work, { request, shape, signal }, send),
      toEvent: (error, signal) => work.toAnswer(error, signal).body,
      onOver: leave,
    })
  } finally {
    if (!request.stream) leave()
  }
}

interface Writing {
  request: ServedRequest
  shape: Shape
  signal: AbortSignal
}

async function writeWhole({ writer }: Work, { request, shape, signal }: Writing): Promise<object> {
  const count = request.prompts.length * request.n
  const choices: FinishedChoice[] = Array.from({ length: count }, () => ({
    text: '',
    tokens: [],
    finishReason: 'length',
  }))
  const usage = await writer(request, {
    signal,
    onPiece: (choice, { text, tokens }) => {
      choices[choice]!.text += text
      choices[choice]!.tokens.push(...tokens)
    },
    onEnd: (choice, finishReason) => {
      choices[choice]!.finishReason = finishReason
    },
  })
  return shape.whole(choices, usage)
}

async function writeChunks(
  { writer }: Work,
  { request, shape, signal }: Writing,
  send: (chunk: object) => void,
): Promise<void> {
  // Where usage was asked for, the other chunks say that theirs is yet to come.
  const chunk = (value: object) => send(request.includeUsage ? { ...value, usage: null } : value)
  const opened = new Set<number>()
  const open = (choice: number) => {
    if (opened.has(choice)) return
    opened.add(choice)
    const opening = shape.opening(choice)
    if (opening) chunk(opening)
  }
  const usage = await writer(request, {
    signal,
    onPiece: (choice, piece) => {
      open(choice)
      chunk(shape.piece(choice, piece))
    },
    onEnd: (choice, finishReason) => {
      open(choice)
      chunk(shape.ending(choice, finishReason))
    },
  })
  if (request.includeUsage) send(shape.usage(usage))
}
