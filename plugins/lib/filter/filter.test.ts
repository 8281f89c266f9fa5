import test from 'ava';
import { Failure } from 'troupe/plugin';
import { absent, labelField, parseFilters, present } from './filter.ts';

const lease = (id: string, labels: { [key: string]: string } = {}) => ({ id, labels });
type Lease = ReturnType<typeof lease>;

const adaptor =
  ({ id, labels }: Lease) =>
  (fieldpath: readonly string[]) => {
    if (fieldpath[0] === 'id') return present(id);
    if (fieldpath[0] === 'labels') return labelField(labels, fieldpath);
    return absent;
  };

const leases = [
  lease('l1'),
  lease('a.b', { foo: 'bar', 'x/y': 'z', under_score: '1', 'with-dash': '2', 'dotted.key.here': '5' }),
  lease('a1b'),
  lease('com,ma "q" \\d', { k: 'v"w' }),
];

const select = (...filters: string[]) => {
  const matches = parseFilters(filters);
  return leases.filter((one) => matches(adaptor(one))).map((one) => one.id);
};

const all = leases.map((one) => one.id);

// What containerd 1.6.20 answers to the same filters over the same leases.
const answers: [string, string[]][] = [
  ['id~=a\\d', ['a1b']],
  ['id~="a\\\\d"', ['a1b']],
  ['labels.foo==bar', ['a.b']],
  ['labels."foo"==bar', ['a.b']],
  ['labels."x/y"', ['a.b']],
  ['labels.under_score', ['a.b']],
  ['labels."with-dash"', ['a.b']],
  ['labels.dotted.key.here==5', ['a.b']],
  ['labels."dotted.key.here"==5', ['a.b']],
  ['labels', []],
  ['id', all],
  ['nope', []],
  ['nope==a', []],
  ['id!=l1', all.slice(1)],
  ['labels.foo!=bar', ['l1', 'a1b', 'com,ma "q" \\d']],
  ['labels.nope!=bar', all],
  ['id=="com,ma \\"q\\" \\\\d"', ['com,ma "q" \\d']],
  ['id~="^com,"', ['com,ma "q" \\d']],
  ['id~=com,labels.k', ['com,ma "q" \\d']],
  ['id==a.b,labels.foo==bar', ['a.b']],
  ['id==a.b,labels.foo==no', []],
  ['labels.foo==""', []],
  ['labels.foo~=""', all],
  ['id~=/a\\/b/', []],
  ['id~=/\\x61/', ['a.b', 'a1b', 'com,ma "q" \\d']],
  ['id~=a|b', ['a.b', 'a1b', 'com,ma "q" \\d']],
  ['id~=||', all],
  ['id~=(?i)L', ['l1']],
  ['id~=\\pN', ['l1', 'a1b']],
  ['id~="\\\\pN"', ['l1', 'a1b']],
  ['id~=^[[:alpha:]]\\d$', ['l1']],
  ['id==a"b', []],
  ['id==a=b', []],
  ['id ==l1', ['l1']],
  ['id  ==  l1', ['l1']],
  ['id== "l1"', ['l1']],
  [' id==l1, id!=x', ['l1']],
  ['labels. foo', ['a.b']],
  ['labels.foo!=""', ['a.b']],
  ['nope!=""', []],
  ['nope==""', []],
  ['id=="\\x6c1"', ['l1']],
  ['id=="\\1541"', ['l1']],
  ['id=="\\u006c1"', ['l1']],
  ["id=='l1'", []],
  ['id==é', []],
  ['', all],
];

for (const [filter, expected] of answers)
  test(`filter ${filter || '(empty)'}`, (t) => {
    t.deepEqual(select(filter), expected);
  });

// containerd's own texts for the same input.
const refusals: [string, string][] = [
  ['a=b', '[a >|=|< b]: unsupported operator "="'],
  ['a===b', '[a >|=|< ==b]: unsupported operator "==="'],
  ['id==!a', '[id >|=|< =!a]: unsupported operator "==!"'],
  ['id~=~a', '[id >|~|< =~a]: unsupported operator "~=~"'],
  ['id~=/a', '[id~= >|/|< a]: quoted literal not terminated'],
  ['id==', '[id==]: expected value or quoted'],
  ['labels."a', '[labels. >|"|< a]: quoted literal not terminated'],
  ['labels.x/y', '[labels.x >|/|< y]: quoted literal not terminated'],
  ['labels.with-dash', '[labels.with >|-|< dash]: expected an operator ("=="|"!="|"~=")'],
  ['id==a,', '[id==a,]: expected field or quoted'],
  [',id==a', '[ >|,|< id==a]: expected field or quoted'],
  ['id.', '[id.]: expected field or quoted'],
  ['id..x', '[id. >|.|< x]: expected field or quoted'],
  ['id!a', '[id >|!|< a]: unsupported operator "!"'],
  ['id==a b', '[id==a >| |< b]: unexpected input:  '],
  ['id=="a\\q"', '[id== >|"|< a\\q"]: illegal escape sequence'],
  ['id~=/a\\d/', '[id~= >|/|< a\\d/]: illegal escape sequence'],
  ['id=="a"b', '[id=="a" >|b|< ]: unexpected input: b'],
  ['id==/a/', '[id== >|/|< a/]: invalid quote encountered'],
  ['id==l1 ', '[id==l1 >| |< ]: unexpected input:  '],
  ['labels .foo', '[labels  >|.|< foo]: expected an operator ("=="|"!="|"~=")'],
  ['id ', '[id ]: expected an operator ("=="|"!="|"~=")'],
  ['id,', '[id,]: expected field or quoted'],
  ['id ,labels.foo', '[id  >|,|< labels.foo]: expected an operator ("=="|"!="|"~=")'],
  ['id=="l1" ,id', '[id=="l1" >| |< ,id]: unexpected input:  '],
  ['id x', '[id  >|x|< ]: expected an operator ("=="|"!="|"~=")'],
  ['id = =l1', '[id  >|=|<  =l1]: unsupported operator "="'],
  [' ', '[ ]: expected field or quoted'],
  ['labels.x/y/z', '[labels.x >|/|< y/z]: expected an operator ("=="|"!="|"~=")'],
  ['labels.|foo|', '[labels. >|||< foo|]: invalid quote encountered'],
  ['id"l1"', '[id >|"|< l1"]: expected an operator ("=="|"!="|"~=")'],
  ['id=="l1".x', '[id=="l1" >|.|< x]: unexpected input: .'],
  ['id#', '[id >|#|< ]: expected an operator ("=="|"!="|"~=")'],
  ['é', '[ >|é|< ]: expected field or quoted'],
  ['id!~l1', '[id >|!|< ~l1]: unsupported operator "!~"'],
  ['id~="a', '[id~= >|"|< a]: quoted literal not terminated'],
  ['id=="\\\'"', '[id== >|"|< \\\'"]: illegal escape sequence'],
  ['id~=/\\"/', '[id~= >|/|< \\"/]: illegal escape sequence'],
  ['id~=|\\/|', '[id~= >|||< \\/|]: illegal escape sequence'],
];

for (const [filter, expected] of refusals)
  test(`no filter: ${filter}`, (t) => {
    const failure = t.throws(() => parseFilters([filter]), { instanceOf: Failure });
    t.is(failure.code, 'InvalidArgument');
    t.is(failure.message, `filters: parse error: ${expected}: invalid argument: invalid argument`);
  });

test('filters of a list are alternatives, none is everything', (t) => {
  t.deepEqual(select('id==l1', 'labels.k'), ['l1', 'com,ma "q" \\d']);
  t.deepEqual(select(), all);
});

test('a megabyte of filter is refused, and a long one makes no long message', (t) => {
  t.like(
    t.throws(() => parseFilters(['x'.repeat(1 << 20)])),
    { code: 'InvalidArgument' },
  );
  t.true(t.throws(() => parseFilters([`${'x'.repeat(60_000)}=`])).message.length < 1000);
});
