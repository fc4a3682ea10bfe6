/** Question sets for training and evaluation. */
import { basename, extname } from 'node:path'
import { SsrlError } from '../errors.ts'
import { normalizeAnswer } from '../rewards/normalize.ts'
import { ANSWER_FIELDS, fieldAt, QUESTION_FIELDS, readAnswers, readQuestion } from './fields.ts'
import { type Row, readRows } from './rows.ts'

/** One question with the answers that count as right. */
export interface Question {
  id: string
  question: string
  goldenAnswers: string[]
  /** The row as it was read. */
  fields: Record<string, unknown>
}

export type QuestionIssueKind =
  | 'empty-question'
  | 'missing-answers'
  | 'blank-answer'
  | 'duplicate-question'
  | 'duplicate-id'

export interface QuestionIssue {
  line: number
  kind: QuestionIssueKind
  message: string
  /** True when the row was left out. */
  dropped: boolean
}

export interface QuestionReport {
  path: string
  /** Rows in the file. */
  rows: number
  /** Questions that came out of it. */
  kept: number
  issues: QuestionIssue[]
  counts: Record<QuestionIssueKind, number>
}

export interface LoadQuestionsOptions {
  /** `'optional'` keeps questions without golden answers (test-time RL); default `'required'` leaves them out. */
  answers?: 'required' | 'optional'
  /** Receives what was odd about the rows, once, before the questions are returned. */
  onReport?: (report: QuestionReport) => void
  signal?: AbortSignal
}

/**
 * Reads a question set from JSONL or parquet, flat or in verl's layout. Accepted fields are `QUESTION_FIELDS` and
 * `ANSWER_FIELDS`; a missing `id` becomes `NAME:LINE`. Rows without a question, and without answers unless those are
 * optional, are left out; duplicates and golden answers that normalise to nothing are kept; all of it is in the report.
 * Throws `ERR_DATASET` with file and line for a row that is not JSON or of the wrong type, and when no question is left.
 */
export async function loadQuestions(path: string, options: LoadQuestionsOptions = {}): Promise<Question[]> {
  const { questions, report } = await loadQuestionsWithReport(path, options)
  options.onReport?.(report)
  return questions
}

/** `loadQuestions` with its report beside the questions (`onReport` is not called). */
export async function loadQuestionsWithReport(
  path: string,
  options: Omit<LoadQuestionsOptions, 'onReport'> = {},
): Promise<{ questions: Question[]; report: QuestionReport }> {
  requireAnswersOption(options.answers)
  const collector = new QuestionCollector(path, options.answers ?? 'required')
  for await (const row of readRows(path, options.signal)) collector.add(row)
  return collector.result()
}

class QuestionCollector {
  #path: string
  #answers: 'required' | 'optional'
  #rows = 0
  #questions: Question[] = []
  #issues: QuestionIssue[] = []
  #lineOfQuestion = new Map<string, number>()
  #lineOfId = new Map<string, number>()

  constructor(path: string, answers: 'required' | 'optional') {
    this.#path = path
    this.#answers = answers
  }

  add({ line, fields }: Row): void {
    this.#rows++
    const where = `${this.#path}:${line}`
    const question = readQuestion(fields, where)
    const goldenAnswers = readAnswers(fields, where)
    const id = readId(fields, `${nameOfDataset(this.#path)}:${line}`)
    if (question === '') {
      this.#report(line, 'empty-question', 'the question is missing or empty', true)
      return
    }
    if (goldenAnswers.every((answer) => answer === '')) {
      const dropped = this.#answers === 'required'
      this.#report(line, 'missing-answers', 'there is no golden answer', dropped)
      if (dropped) return
    }
    const blank = goldenAnswers.find((answer) => normalizeAnswer(answer) === '')
    if (blank !== undefined) {
      this.#report(
        line,
        'blank-answer',
        `the golden answer ${JSON.stringify(blank)} normalises to nothing`,
        false,
      )
    }
    this.#noteDuplicate('duplicate-question', this.#lineOfQuestion, question, line)
    this.#noteDuplicate('duplicate-id', this.#lineOfId, id, line)
    this.#questions.push({ id, question, goldenAnswers, fields })
  }

  result(): { questions: Question[]; report: QuestionReport } {
    const counts: Record<QuestionIssueKind, number> = {
      'empty-question': 0,
      'missing-answers': 0,
      'blank-answer': 0,
      'duplicate-question': 0,
      'duplicate-id': 0,
    }
    for (const issue of this.#issues) counts[issue.kind]++
    if (this.#questions.length === 0) {
      throw new SsrlError(
        'ERR_DATASET',
        `Expected questions in ${this.#path} but none of its ${this.#rows} rows is usable (${counts['empty-question']} without a question, ${counts['missing-answers']} without answers). ` +
          `The question is looked for in ${QUESTION_FIELDS.join(', ')}; the answers in ${ANSWER_FIELDS.join(', ')}`,
      )
    }
    const report = {
      path: this.#path,
      rows: this.#rows,
      kept: this.#questions.length,
      issues: this.#issues,
      counts,
    }
    return { questions: this.#questions, report }
  }

  #noteDuplicate(kind: QuestionIssueKind, seen: Map<string, number>, value: string, line: number): void {
    const before = seen.get(value)
    if (before === undefined) seen.set(value, line)
    else this.#report(line, kind, `${JSON.stringify(value)} stands in line ${before} already`, false)
  }

  #report(line: number, kind: QuestionIssueKind, message: string, dropped: boolean): void {
    this.#issues.push({ line, kind, message, dropped })
  }
}

/** The name of a data set: its file's base name without `.jsonl`, `.json` or `.parquet`. */
export function nameOfDataset(path: string): string {
  const extension = extname(path)
  return basename(path, ['.jsonl', '.json', '.parquet'].includes(extension) ? extension : '')
}

function readId(fields: Record<string, unknown>, otherwise: string): string {
  for (const name of ['id', '_id', 'qid']) {
    const id = fieldAt(fields, name)
    if (typeof id === 'string' && id !== '') return id
    if (typeof id === 'number') return String(id)
  }
  return otherwise
}

function requireAnswersOption(answers: unknown): void {
  if (answers === undefined || answers === 'required' || answers === 'optional') return
  throw new SsrlError(
    'ERR_INVALID_ARG',
    `Expected answers to be 'required' or 'optional' but received ${String(answers)}`,
  )
}
