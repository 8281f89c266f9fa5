/**
 * Matches RE2 expressions in time linear in the text, as a set of threads over the expression that step through the text together (Thompson's
 * construction). JavaScript's engine backtracks: `(a+)+$` from a client would stop the daemon.
 *
 * Sets of threads that were seen are kept as states with their transitions, so that the usual cost is one map lookup per character.
 */
import { Failure } from 'troupe/plugin';
import { quote } from '../identifier/quote.ts';
import { type Assertion, type Node, parseRegexp } from './regexp-syntax.ts';

type Instruction =
  | { readonly op: 'set'; readonly has: (character: string) => boolean; next: number }
  | { readonly op: 'assert'; readonly assertion: Assertion; next: number }
  | { readonly op: 'split'; next: number; other: number }
  | { readonly op: 'match' };

/** Instructions of one expression; a step costs at most so much. */
const maxProgram = 4000;
/** States kept before the memory is thrown away: an expression can have exponentially many. */
const maxStates = 500;

/**
 * Whether the expression is found anywhere in a text.
 *
 * @throws Failure InvalidArgument when it is no RE2 expression, or one of more than 4000 steps.
 */
export function compileRegexp(source: string): (text: string) => boolean {
  if (source === '') return () => true;
  try {
    const tree = parseRegexp(source);
    return literalMatcher(tree) ?? automaton(compile(tree));
  } catch (thrown) {
    if (!(thrown instanceof SyntaxError)) throw thrown;
    const shown = source.length > 256 ? `${source.slice(0, 256)}…` : source;
    throw new Failure(
      'InvalidArgument',
      `filters: regular expression ${quote(shown)}: ${thrown.message}: invalid argument`,
    );
  }
}

/** Plain text, `^text`, `text$`, `^text$`: what clients send most. */
function literalMatcher(tree: Node): ((text: string) => boolean) | undefined {
  const items = tree.kind === 'sequence' ? [...tree.items] : [tree];
  const isAssertion = (node: Node | undefined, assertion: Assertion) =>
    node?.kind === 'assert' && node.assertion === assertion;
  const start = isAssertion(items[0], 'text start');
  if (start) items.shift();
  const end = isAssertion(items.at(-1), 'text end');
  if (end) items.pop();
  let literal = '';
  for (const item of items) {
    if (item.kind !== 'set' || item.literal === undefined) return undefined;
    literal += item.literal;
  }
  if (start && end) return (text) => text === literal;
  if (start) return (text) => text.startsWith(literal);
  if (end) return (text) => text.endsWith(literal);
  return (text) => text.includes(literal);
}

function compile(tree: Node): Instruction[] {
  const program: Instruction[] = [];
  const add = (instruction: Instruction): number => {
    if (program.length >= maxProgram) throw new SyntaxError('expression too large');
    return program.push(instruction) - 1;
  };
  // From the end to the front: each node is given what follows it.
  // Copies of nothing add no instruction, and a thousand of a thousand of them would still take their time.
  let work = 0;
  const emit = (node: Node, next: number): number => {
    work += 1;
    if (work > 20 * maxProgram) throw new SyntaxError('expression too large');
    switch (node.kind) {
      case 'empty':
        return next;
      case 'set':
        return add({ op: 'set', has: node.has, next });
      case 'assert':
        return add({ op: 'assert', assertion: node.assertion, next });
      case 'sequence':
        return node.items.reduceRight((following, item) => emit(item, following), next);
      case 'choice':
        return node.items
          .map((item) => emit(item, next))
          .reduce((other, entry) => add({ op: 'split', next: entry, other }));
      case 'repeat': {
        let entry = next;
        if (node.max === Infinity) {
          const loop: Instruction = { op: 'split', next, other: next };
          entry = add(loop);
          loop.other = emit(node.item, entry);
        } else {
          for (let count = node.min; count < node.max; count++)
            entry = add({ op: 'split', next, other: emit(node.item, entry) });
        }
        for (let count = 0; count < node.min; count++) entry = emit(node.item, entry);
        return entry;
      }
    }
  };
  const match = add({ op: 'match' });
  // The entry goes last, where automaton() looks for it.
  add({ op: 'split', next: emit(tree, match), other: match });
  const entry = program.at(-1) as Extract<Instruction, { op: 'split' }>;
  entry.other = entry.next;
  return program;
}

/** What the character before a place says to the assertions at it. */
type Before = 'start' | 'newline' | 'word' | 'other';

interface State {
  readonly threads: readonly number[];
  readonly before: Before;
  /** By character; the empty string is the end of the text. True: matched. */
  readonly steps: Map<string, State | boolean>;
}

function automaton(program: readonly Instruction[]): (text: string) => boolean {
  const start = program.length - 1;
  let states = new Map<string, State>();
  const intern = (threads: number[], before: Before): State => {
    const key = `${before}${threads.join()}`;
    let state = states.get(key);
    if (state === undefined) {
      if (states.size >= maxStates) states = new Map();
      state = { threads, before, steps: new Map() };
      states.set(key, state);
    }
    return state;
  };
  const mark = new Uint32Array(program.length);
  let round = 0;

  /** Threads after the character, or whether the match ends here. */
  const step = (state: State, character: string): State | boolean => {
    round += 1;
    const reached: number[] = [];
    const pending = [...state.threads, start];
    while (pending.length > 0) {
      const at = pending.pop()!;
      if (mark[at] === round) continue;
      mark[at] = round;
      const instruction = program[at]!;
      switch (instruction.op) {
        case 'match':
          return true;
        case 'split':
          pending.push(instruction.next, instruction.other);
          break;
        case 'assert':
          if (holds(instruction.assertion, state.before, character)) pending.push(instruction.next);
          break;
        case 'set':
          if (character !== '' && instruction.has(character)) reached.push(instruction.next);
          break;
      }
    }
    if (character === '') return false;
    return intern(
      [...new Set(reached)].sort((a, b) => a - b),
      classify(character),
    );
  };

  return (text) => {
    let state = intern([], 'start');
    for (const character of text) {
      let next = state.steps.get(character);
      if (next === undefined) {
        next = step(state, character);
        if (state.steps.size < 1000) state.steps.set(character, next);
      }
      if (typeof next === 'boolean') return next;
      state = next;
    }
    let last = state.steps.get('');
    if (last === undefined) {
      last = step(state, '');
      state.steps.set('', last);
    }
    return last === true;
  };
}

function classify(character: string): Before {
  if (character === '\n') return 'newline';
  return /^[0-9A-Za-z_]$/.test(character) ? 'word' : 'other';
}

function holds(assertion: Assertion, before: Before, after: string): boolean {
  switch (assertion) {
    case 'text start':
      return before === 'start';
    case 'text end':
      return after === '';
    case 'line start':
      return before === 'start' || before === 'newline';
    case 'line end':
      return after === '' || after === '\n';
    case 'word border':
      return (before === 'word') !== (classify(after) === 'word');
    case 'no word border':
      return (before === 'word') === (classify(after) === 'word');
  }
}
