/**
 * One trajectory whose searches are answered as they come: generate until `</search>`, ask, append the documents over the
 * same pages, go on. What the policy wrote stays as it was sampled; text from outside is marked as such.
 */
import type { Question } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import type { Completion } from '../policy/completion.ts'
import type { Policy } from '../policy/policy.ts'
import type { Session, SessionGenerateOptions } from '../policy/session.ts'
import type { Tokenizer } from '../policy/tokenizer.ts'
import { derivedSeed } from '../random-seed.ts'
import type { AnsweredSearch } from '../search/desk.ts'
import type { SearchDocument } from '../search/provider.ts'
import { informationBlock } from '../search/sanitize.ts'
import { tokenizerOf } from './encode-question.ts'
import { type ParsedCompletion, type Span, STOP_TAG, TagParser } from './grammar.ts'
import type { Search, SearchRecord } from './search.ts'
import { type FinishReason, TokenSource } from './trajectory.ts'

const searchStop = '</search>'

/** What a provider draws from for one search of a rollout: known beforehand, so that records can be matched with it. */
export function searchSeed(seed: number, question: number, sampleIndex: number, turn: number): number {
  return derivedSeed(derivedSeed(seed, question), sampleIndex, turn)
}

/** What Search-R1 tells of an action that is none, in words of our own. */
export const invalidActionMessage =
  '\nThat was neither a search nor an answer. To search, write the query between <search> and </search>. ' +
  'To answer, write the answer between <answer> and </answer>. Try again.\n'

export interface RowInput {
  policy: Policy
  /** At the end of the prompt; it is closed at the end. */
  session: Session
  question: Question
  sampleIndex: number
  /** Of the question; the sample's index makes the rest of the key. */
  seed: number
  sampling: Pick<SessionGenerateOptions, 'temperature' | 'topP' | 'topK' | 'minP'>
  /** Tokens behind the prompt at most, documents counted. */
  maxNewTokens: number
  stopAtAnswer: boolean
  search: Search
  step: number
  steps: number
  /** Called for every token as it comes, those from outside too. */
  onToken?: (token: RowToken) => void
  signal: AbortSignal
}

export interface RowToken {
  token: number
  /** The text that became certain with it. */
  text: string
  /** A `TokenSource`: the policy or a search. */
  source: number
  /** 0 where the policy did not sample it. */
  logProb: number
}

/** What `createTrajectory` wants of a completion that was written in turns. */
export interface WrittenRow {
  completionTokens: Int32Array
  pieces: string[]
  logProbs: Float32Array
  entropies: Float32Array
  source: Uint8Array
  finishReason: FinishReason
  searches: SearchRecord[]
  invalidActions: number
}

export async function runRow(input: RowInput): Promise<WrittenRow> {
  const { session } = input
  try {
    return await new Row(input).run()
  } finally {
    session.close()
  }
}

class Row {
  readonly #input: RowInput
  readonly #tokenizer: Tokenizer
  readonly #stream: { push(id: number): string }
  readonly #parser = new TagParser()
  readonly #tokens: number[] = []
  readonly #pieces: string[] = []
  readonly #logProbs: number[] = []
  readonly #entropies: number[] = []
  readonly #source: number[] = []
  /** From outside, and not yet computed: it goes with the next call, as a call of its own would cost a step. */
  #appended = new Int32Array(0)
  readonly #searches: SearchRecord[] = []
  #invalidActions = 0
  #previousEntropy: number | null = null

  constructor(input: RowInput) {
    this.#input = input
    this.#tokenizer = tokenizerOf(input.policy)
    this.#stream = this.#tokenizer.createStream()
  }

  async run(): Promise<WrittenRow> {
    let finishReason: FinishReason | null = null
    while (finishReason === null) finishReason = await this.#turn()
    return {
      completionTokens: Int32Array.from(this.#tokens),
      pieces: this.#pieces,
      logProbs: Float32Array.from(this.#logProbs),
      entropies: Float32Array.from(this.#entropies),
      source: Uint8Array.from(this.#source),
      finishReason,
      searches: this.#searches,
      invalidActions: this.#invalidActions,
    }
  }

  /** Writes up to the next search, answers it, and gives the reason to end if there is one. */
  async #turn(): Promise<FinishReason | null> {
    const { session, sampling, seed, sampleIndex, stopAtAnswer, signal, onToken } = this.#input
    const stop = stopAtAnswer ? [searchStop, STOP_TAG] : [searchStop]
    const maxNewTokens = this.#room()
    if (maxNewTokens < 1) return 'length'
    const append = this.#appended
    this.#appended = new Int32Array(0)
    const completion = await session.generate({
      ...sampling,
      ...{ seed, sampleIndex, append, stop, maxNewTokens, signal },
      onToken: onToken && ((event) => onToken({ ...event, source: TokenSource.policy })),
    })
    this.#takeCompletion(completion)
    if (completion.finishReason === 'length') return 'length'
    const parsed = this.#parser.finish()
    if (completion.finishReason === 'end') return parsed.answer === null ? this.#invalidAction('end') : 'end'
    if (parsed.searchCount > this.#searches.length) return this.#answerSearch(parsed)
    if (stopAtAnswer && completion.text.includes(STOP_TAG)) return 'stop'
    // A closer without its opener is text; where actions are checked it is an action that is none.
    return this.#invalidAction(null)
  }

  /** Tokens that may still be written. */
  #room(): number {
    const { maxNewTokens, policy, session } = this.#input
    const length = session.length + this.#appended.length
    return Math.min(maxNewTokens - this.#tokens.length, policy.config.maxPositions - length)
  }

  #takeCompletion({ tokens, logProbs, entropies }: Completion): void {
    const { endTokenIds } = this.#input.policy
    for (const [index, token] of tokens.entries()) {
      const piece = endTokenIds.includes(token) ? '' : this.#stream.push(token)
      this.#take(token, piece, TokenSource.policy)
      this.#logProbs.push(logProbs[index]!)
      this.#entropies.push(entropies[index]!)
    }
  }

  #take(token: number, piece: string, source: number): void {
    this.#tokens.push(token)
    this.#pieces.push(piece)
    this.#source.push(source)
    this.#parser.push(piece)
  }

  #append(tokens: Int32Array): void {
    this.#appended = Int32Array.from([...this.#appended, ...tokens])
    for (const token of tokens) {
      const text = this.#stream.push(token)
      this.#take(token, text, TokenSource.search)
      this.#input.onToken?.({ token, text, source: TokenSource.search, logProb: 0 })
      this.#logProbs.push(0)
      this.#entropies.push(0)
    }
  }

  /** Tells the policy so and goes on, where actions are checked; else ends for the reason given, if there is one. */
  #invalidAction(reason: FinishReason | null): FinishReason | null {
    const { search } = this.#input
    if (!search.answersInvalidActions) return reason
    if (this.#actions() >= search.maxSearches) return reason ?? 'stop'
    this.#invalidActions += 1
    return this.#tellInvalid()
  }

  #tellInvalid(): FinishReason | null {
    const options = { addSpecialTokens: false, allowAddedTokens: false }
    const message = this.#tokenizer.encode(invalidActionMessage, options)
    if (message.length >= this.#room()) return 'length'
    this.#append(message)
    return null
  }

  #actions(): number {
    return this.#searches.length + this.#invalidActions
  }

  async #answerSearch(parsed: ParsedCompletion): Promise<FinishReason | null> {
    const { search } = this.#input
    const span = parsed.spans.findLast(({ kind, closed }) => kind === 'search' && closed)!
    const record: SearchRecord = {
      turn: this.#searches.length,
      query: parsed.queries.at(-1)!,
      outcome: 'self',
      provider: null,
      failure: null,
      cached: false,
      documents: 0,
      tokens: 0,
      latency: 0,
      attempts: 0,
    }
    const isOver = this.#actions() >= search.maxSearches
    this.#searches.push(record)
    if (isOver) return 'stop'
    if (record.query === '') {
      record.outcome = 'blank'
      if (search.answersInvalidActions) return this.#tellInvalid()
      return this.#appendDocuments([], record, parsed.text.slice(span.end))
    }
    const documents = await this.#ask(record, this.#entropyOf(span, parsed.tokenEnds))
    return documents === null ? null : this.#appendDocuments(documents, record, parsed.text.slice(span.end))
  }

  /** The documents to show; null where the policy goes on by itself. */
  async #ask(record: SearchRecord, entropy: number): Promise<readonly SearchDocument[] | null> {
    const { search, question, seed, sampleIndex, step, steps, signal } = this.#input
    const { turn, query } = record
    const previousEntropy = this.#previousEntropy
    this.#previousEntropy = entropy
    const drawn = derivedSeed(seed, sampleIndex, turn)
    if (search.schedule({ turn, step, steps, entropy, previousEntropy, seed: drawn }) === 'self') return null
    const { id, question: text, goldenAnswers } = question
    const origin = { questionId: id, question: text, goldenAnswers, turn, seed: drawn }
    const answered = await search.desk.ask(query, origin, { signal, step, steps })
    return this.#recordAnswer(record, answered)
  }

  #recordAnswer(record: SearchRecord, { result, latency, attempts }: AnsweredSearch) {
    const { search } = this.#input
    if ('self' in result) return null
    Object.assign(record, {
      provider: search.desk.provider.name,
      latency,
      attempts,
      cached: result.cached === true,
    })
    if ('documents' in result) {
      record.outcome = 'documents'
      record.documents = result.documents.length
      return result.documents
    }
    record.outcome = 'failure'
    record.failure = result.failure
    if (search.onFailure === 'fail') {
      const { code, message } = result.failure
      const shown = JSON.stringify(record.query.slice(0, 120))
      throw new SsrlError(code, `The search for ${shown} failed, and onFailure is 'fail': ${message}`)
    }
    return search.onFailure === 'self' ? null : []
  }

  #appendDocuments(
    documents: readonly SearchDocument[],
    record: SearchRecord,
    overshoot: string,
  ): FinishReason | null {
    const { layout, maxDocumentTokens } = this.#input.search
    // At least one token must be left to write.
    const maxTokens = this.#room() - 1
    const block = informationBlock(this.#tokenizer, documents, {
      layout,
      maxDocumentTokens,
      maxTokens,
      overshoot,
    })
    if (block === null) return 'length'
    record.tokens = block.length
    this.#append(block)
    return null
  }

  /** Mean over the query's tokens, of the true entropy that the sampler gives (not -log p of what was drawn). */
  #entropyOf({ contentStart, contentEnd }: Span, tokenEnds: Int32Array): number {
    let sum = 0
    let count = 0
    for (const [index, end] of tokenEnds.entries()) {
      const start = index === 0 ? 0 : tokenEnds[index - 1]!
      if (end <= contentStart || start >= contentEnd) continue
      sum += this.#entropies[index]!
      count += 1
    }
    return count === 0 ? 0 : sum / count
  }
}
