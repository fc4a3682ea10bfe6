import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { derivedSeed } from '../random-seed.ts'
import type { Method } from './methods.ts'
import type { Sample, Sampler, SampleSettings } from './sample.ts'

/** An OpenAI-compatible server. */
export interface Endpoint {
  /** Base address, as `http://localhost:8000/v1`. */
  url: string
  model: string
  apiKey?: string
  /** Requests under way at once; default 8. */
  concurrency?: number
  /** Milliseconds for one request; default 120,000. */
  timeout?: number
  /** Tries of one request when the server is busy or can't be reached; default 4. */
  attempts?: number
}

const reply = z.object({
  choices: z
    .array(
      z.object({
        message: z.object({ content: z.string().nullable() }).optional(),
        text: z.string().optional(),
        finish_reason: z.string().nullish(),
      }),
    )
    .min(1),
  usage: z.object({ completion_tokens: z.number() }).nullish(),
})

/** Samples from an endpoint, one request a sample: not every server knows `n`. Chat methods use its chat completions. */
export function endpointSampler(endpoint: Endpoint): Sampler {
  return async (questions, method, settings) => {
    const { n, seed, signal } = settings
    const samples: Sample[][] = questions.map(() => [])
    const jobs = questions.flatMap((question, index) =>
      Array.from({ length: n }, (_, sample) => async () => {
        // Servers want seeds of 32 bits.
        const body = toBody(endpoint, method, question, settings, derivedSeed(seed, index, sample) % 2 ** 31)
        samples[index]![sample] = toSample(await ask(endpoint, method, body, signal), method)
        if (samples[index]!.filter(Boolean).length === n) settings.onQuestion?.()
      }),
    )
    await runJobs(jobs, endpoint.concurrency ?? 8)
    return samples
  }
}

function toBody(
  { model }: Endpoint,
  method: Method,
  { question }: Question,
  { temperature, topP, topK, minP, maxNewTokens }: SampleSettings,
  seed: number,
): Record<string, unknown> {
  const text = method
    .prompt(question)
    .map((segment) => segment.text)
    .join('')
  return {
    model,
    ...(method.form === 'chat' ? { messages: [{ role: 'user', content: text }] } : { prompt: text }),
    temperature,
    top_p: topP,
    // Not in OpenAI's own interface, so only where they are asked for.
    ...(topK > 0 ? { top_k: topK } : {}),
    ...(minP > 0 ? { min_p: minP } : {}),
    max_tokens: maxNewTokens,
    ...(method.stop.length > 0 ? { stop: method.stop } : {}),
    seed,
  }
}

async function ask(
  endpoint: Endpoint,
  method: Method,
  body: Record<string, unknown>,
  signal?: AbortSignal,
): Promise<z.infer<typeof reply>> {
  const path = method.form === 'chat' ? 'chat/completions' : 'completions'
  const url = `${endpoint.url.replace(/\/+$/, '')}/${path}`
  const attempts = endpoint.attempts ?? 4
  for (let attempt = 1; ; attempt++) {
    const outcome = await askOnce(url, endpoint, body, signal)
    if ('answer' in outcome) return outcome.answer
    if (!outcome.again || attempt >= attempts) {
      throw new SsrlError('ERR_NETWORK', `${url} gave no completion: ${outcome.problem}`, {
        cause: outcome.cause,
      })
    }
    await sleep(250 * 2 ** attempt, undefined, { signal })
  }
}

type Outcome = { answer: z.infer<typeof reply> } | { problem: string; again: boolean; cause?: unknown }

async function askOnce(
  url: string,
  { apiKey, timeout = 120_000 }: Endpoint,
  body: Record<string, unknown>,
  signal?: AbortSignal,
): Promise<Outcome> {
  const limit = AbortSignal.timeout(timeout)
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}),
      },
      body: JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    })
    const text = await response.text()
    if (!response.ok) {
      const again = response.status === 429 || response.status >= 500
      return { problem: `status ${response.status}: ${text.slice(0, 200)}`, again }
    }
    const parsed = reply.safeParse(parseJson(text))
    if (parsed.success) return { answer: parsed.data }
    return { problem: `expected a completion but received ${text.slice(0, 200)}`, again: false }
  } catch (cause) {
    signal?.throwIfAborted()
    return { problem: limit.aborted ? `no answer within ${timeout} ms` : String(cause), again: true, cause }
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** Servers leave the stop string out of the text; it is put back, since the answer ends with it. */
function toSample({ choices, usage }: z.infer<typeof reply>, method: Method): Sample {
  const choice = choices[0]!
  const written = choice.message?.content ?? choice.text ?? ''
  const truncated = choice.finish_reason === 'length'
  const stop = method.stop.find((candidate) => candidate.startsWith('</'))
  const opener = stop?.replace('</', '<')
  const cut = stop !== undefined && !truncated && written.lastIndexOf(opener!) > written.lastIndexOf(stop)
  return {
    text: cut ? written + stop : written,
    finishReason: truncated ? 'length' : 'stop',
    tokens: usage?.completion_tokens ?? 0,
  }
}

/** Runs jobs with at most `limit` under way; the first failure stops those that have not begun. */
async function runJobs(jobs: (() => Promise<void>)[], limit: number): Promise<void> {
  let next = 0
  let failed = false
  const worker = async () => {
    while (next < jobs.length && !failed) {
      try {
        await jobs[next++]!()
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(limit, jobs.length) }, worker))
}
