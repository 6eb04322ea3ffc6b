"""The report's page around its content: style, and nothing that is fetched."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>TITLE</title>
<style>
:root {
  color-scheme: light dark; --back: #fff; --text: #1b1d22; --dim: #626874; --line: #dfe2e8;
  --bar: #3a6db5; --other: #9aa1ad;
  --note: #fff1cc; --edge: #c98a00; --link: #1f57a4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #121419; --text: #e6e8ec; --dim: #9aa1ad; --line: #2c3038; --bar: #6b9fe8; --other: #6d7480;
    --note: #38300f; --edge: #d9a520; --link: #8ab6f2;
  }
}
body {
  margin: 0 auto; max-width: 1100px; padding: 1.5rem 1rem 3rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; }
a { color: var(--link); }
.dim { color: var(--dim); font-weight: normal; }
.note { background: var(--note); border-left: 4px solid var(--edge); padding: .5rem .8rem; }
.legend { display: inline-block; width: 11rem; height: .8rem; margin: 0 .3rem; border-radius: 2px;
  vertical-align: -.05rem; }
.scroll { overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; font-weight: normal; }
tr:first-child > th:not([scope]) { color: var(--dim); font-size: .85rem; }
.n { text-align: right; white-space: nowrap; padding-right: .4rem; padding-left: .4rem; }
td.bar { width: 50%; vertical-align: middle; }
td.bar div { height: .8rem; min-width: 1px; background: var(--bar); border-radius: 2px; }
td.bar div.other { background: var(--other); }
td.bar div.track { background: var(--line); }
.facts th { color: var(--dim); white-space: nowrap; }
.small { font-size: .88rem; width: auto; }
details { margin: .6rem 0; }
figure { margin: .4rem 0 1rem; }
figcaption { color: var(--dim); font-size: .88rem; margin-top: .3rem; }
summary { cursor: pointer; color: var(--link); }
li details { display: inline-block; vertical-align: top; margin: 0 0 0 .5rem; }
.links a { display: inline-block; margin-right: .6rem; }
@media (max-width: 640px) {
  .wide { display: none; }
  img { max-width: 820px; }
  td.bar { width: 34%; }
}
</style>
</head>
<body>
BODY
</body>
</html>
"""
