import type { Question } from '../data/questions.ts'
import type { Policy } from '../policy/policy.ts'
import { Session } from '../policy/session.ts'
import type { Search } from './search.ts'
import { type RowToken, runRow, type WrittenRow } from './search-row.ts'

export interface AnswerPromptOptions {
  search: Search
  /** Answers, which share the prompt; default 1. */
  n?: number
  temperature?: number
  topP?: number
  topK?: number
  minP?: number
  /** Tokens behind the prompt at most, documents counted. */
  maxNewTokens: number
  seed: number
  /** Called for every token of every answer as it comes. */
  onToken?: (sampleIndex: number, token: RowToken) => void
  /** Called for every answer as it ends. */
  onAnswer?: (sampleIndex: number, row: WrittenRow) => void
  signal: AbortSignal
}

/** Answers one prompt outside of a rollout, for those who watch: searches are answered as they come. */
export async function answerPrompt(
  policy: Policy,
  promptTokens: Int32Array,
  question: Question,
  options: AnswerPromptOptions,
): Promise<WrittenRow[]> {
  const { n = 1, temperature, topP, topK, minP, onToken, onAnswer, ...rest } = options
  rest.signal.throwIfAborted()
  const base = await Session.open(policy, promptTokens)
  const sessions = await base.fork(n).finally(() => base.close())
  const rows = sessions.map(async (session, sampleIndex) => {
    const row = await runRow({
      policy,
      session,
      question,
      sampleIndex,
      sampling: { temperature, topP, topK, minP },
      stopAtAnswer: true,
      step: 0,
      steps: 0,
      onToken: onToken && ((token) => onToken(sampleIndex, token)),
      ...rest,
    })
    onAnswer?.(sampleIndex, row)
    return row
  })
  await Promise.allSettled(rows)
  return Promise.all(rows)
}
