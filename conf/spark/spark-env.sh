# Spark's scripts read this before they start Java. It tells in one sentence what Java would answer with a stack.

# Java takes a character that the locale does not have for a question mark; the locale C has ASCII alone.
export LC_ALL=C.UTF-8
# the Python of a notebook starts no job
unset PYSPARK_DRIVER_PYTHON PYSPARK_DRIVER_PYTHON_OPTS

_refuse() { echo "error: $1" >&2; exit 2; }
_java=${JAVA_HOME:+$JAVA_HOME/bin/}java
_release=$("$_java" -version 2>&1 | sed -n 's/.* version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p')
[ -n "$_release" ] ||
  _refuse "$_java does not run (JAVA_HOME is ${JAVA_HOME:-not set}): source conf/spark/env.sh sets the right one"
{ [ "$_release" -ge 8 ] && [ "$_release" -le 23 ]; } ||
  _refuse "$_java is Java $_release, and Spark 3.5 runs on 8 to 23: source conf/spark/env.sh sets the right one"
id -un >/dev/null 2>&1 ||
  _refuse "user id $(id -u) has no name, and Spark needs one: add $(id -u):x:$(id -u):$(id -g)::/tmp:/bin/sh to /etc/passwd"
! command -v getent >/dev/null || getent hosts "$(uname -n)" >/dev/null ||
  _refuse "this machine's own name, $(uname -n), has no address: add the line 127.0.0.1 $(uname -n) to /etc/hosts"
unset -f _refuse
unset _java _release
