/**
 * What is wrong with something a person wrote, and where. Problems are collected, never thrown one at a time: whoever edits a file
 * should see everything wrong with it in one run.
 */
export interface Problem {
  readonly message: string;
  readonly file?: string;
  /** From 1. Absent when no single line is to blame (a cycle, a key that is missing). */
  readonly line?: number;
  readonly column?: number;
  /** Manifests, any of which would make the problem go away by not being there; the likeliest first. */
  readonly blames?: readonly string[];
}

/** `file:line:column: message`, leaving out what is not known: the form that editors and terminals turn into a link. */
export function renderProblem(problem: Problem): string {
  const place = [problem.file, problem.line, problem.column].filter((part) => part !== undefined);
  return place.length === 0 ? problem.message : `${place.join(':')}: ${problem.message}`;
}

/** Thrown where going on makes no sense. `message` holds all problems, one a line. */
export class ProblemsError extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    // A key that two readers look at is one mistake.
    const distinct = new Map(problems.map((problem) => [renderProblem(problem), problem]));
    super([...distinct.keys()].join('\n'));
    this.name = 'ProblemsError';
    this.problems = [...distinct.values()];
  }
}
