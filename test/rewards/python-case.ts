/** One row of fixtures/python-scores.json; see python-scores.py beside it. */
export type PythonCase = [
  prediction: string,
  goldenAnswers: string[],
  normalized: string,
  em: number,
  coverEm: number,
  f1: number,
]
